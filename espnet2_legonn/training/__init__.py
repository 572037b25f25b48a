"""ESPnet side: the model that ESPnet trains, its trainer, preprocessing, schedules and averaging."""
