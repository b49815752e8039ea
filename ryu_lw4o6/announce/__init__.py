"""Route announcements: which addresses of an lwAFTR routers may send packets to, and when."""
