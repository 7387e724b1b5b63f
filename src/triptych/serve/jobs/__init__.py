"""Jobs: requests that are kept safe and answered later, by the routes that answer all others."""
