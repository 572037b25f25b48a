"""Files that may come from anybody: lines, plain descriptions, archives, folders that appear whole."""
