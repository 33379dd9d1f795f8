"""A pair in memory, a network that loses and delays, and a teller of stories.  Shipped: `understudy simulate`."""
