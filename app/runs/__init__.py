"""Run folders: the job, its progress, the edit, and what was drawn and measured."""
