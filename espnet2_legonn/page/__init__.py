"""A small web page: choose parts, see whether they fit, speak or type, see every interface."""
