"""From the configuration to a finished run: the sweep, the job, the worker process, the pipeline."""
