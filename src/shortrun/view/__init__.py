"""Looking at runs: everything here only reads run folders."""
