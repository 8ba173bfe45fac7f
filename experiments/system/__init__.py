"""What any command needs of the machine: files, locks, processes, progress, messages, the stamp."""
