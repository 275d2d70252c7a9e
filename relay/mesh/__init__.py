"""What a relay is to its neighbours: links proven and measured, sessions opened, route tables followed."""
