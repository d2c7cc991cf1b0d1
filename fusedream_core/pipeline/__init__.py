"""From a prompt to an image in one call: jobs, results, and resumable runs."""
