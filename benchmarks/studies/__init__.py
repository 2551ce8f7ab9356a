"""One file per question; nothing may import a study."""
