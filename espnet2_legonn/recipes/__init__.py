"""What the stages of egs2/TEMPLATE/legonn1/legonn.sh do; one Python call per stage."""
