"""The comparison of runs: tables for display and files, selection, gates and regressions."""
