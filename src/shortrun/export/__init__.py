"""Handing models on: what is exported, written whole and checked; it reads run folders and never imports train/."""
