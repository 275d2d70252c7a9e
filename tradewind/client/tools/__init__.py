"""Command line tools for one stream: `tradewind publish` and `tradewind subscribe`."""
