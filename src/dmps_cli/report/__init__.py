"""Results as people read them: tables, statistics, the paper's own figures, plots, contact sheets, a page."""
