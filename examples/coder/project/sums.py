def total(prices, discount=0.0):
    """Return what the prices come to, less a discount: a share of 1."""
    return sum(prices) * (1 + discount)
