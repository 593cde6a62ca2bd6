"""Remote model repositories: mirrored into a local cache, whose files everything else reads."""
