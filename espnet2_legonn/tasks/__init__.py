"""ESPnet side: the task, and registration with the stock tasks."""
