"""Networks alone, their parameters named as published."""
