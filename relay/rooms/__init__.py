"""Ordered messages: a home gives every message its place, a follower keeps a second copy, everybody reads one order."""
