"""The figures: each module measures one thing on the ground that is there."""
