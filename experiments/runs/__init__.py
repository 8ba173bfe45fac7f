"""From the configuration to a finished run: sweep, job, worker process, pipeline."""
