"""Which relay a viewer should go to: decided here, the same by the control plane and by a relay that is on its own.

`control.placement` and `last_table` (for relays) put these together and add what only they know.
"""
