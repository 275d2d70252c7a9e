"""Which way media goes between any two relays: `planner` is the room's face.

From what is measured to what relays are told, each in its own module:

    weights     evidence and priors -> what every directed link and every relay on the way costs
    paths       costs -> the cheapest way of every ordered pair, and disjoint spares; whole, or after one change
    routes      cheapest ways and the plan in force -> the next plan, with as few changes as are worth it
    neighbours  which links are measured at all
    tables      a plan -> each relay's route table, and which relays' tables changed
    schedule    when any of it is done
    explain     why a route is what it is
"""
