"""What runs the system on one machine: the embedded broker, the supervisor, the demonstration."""
