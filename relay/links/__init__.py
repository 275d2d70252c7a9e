"""Links: how well packets come from each neighbour, how well ours go there, and who is to be gone round.

`relay.node` gives every neighbour a QUIC connection of its own, feeds a `Link` with what comes over it and with what it
counts on the other connections from there, and sends what the link wants sent. `neighbours` holds all of them.

    settings.py     every threshold, frozen
    gaps.py         packet numbers -> arrived and lost
    estimators.py   loss as a sequential test, loss by windows, round trips, delay variation, steps
    states.py       the table UP / SUSPECT / BAD / PROBATION, and flap damping
    datagrams.py    what travels: probes and reports
    outgoing.py     when probes and reports leave, and how many
    inbound.py      the direction towards us, as we measure it
    outbound.py     the direction away from us, as the far end's reports show it
    link.py         one neighbour: all of the above
    neighbours.py   at most 32 of them, one deadline

A fault has a direction. Nothing arrives: inbound is silent, and outbound stays as it was, since nobody can tell.
Something arrives, and says that ours does not: outbound.
"""
