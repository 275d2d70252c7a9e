"""What is known of every relay and every link: `relays` is the room's face, `values` its nouns, `flaps` its memory."""
