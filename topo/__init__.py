"""The lab: subscribers, an access router, an lwAFTR and an Internet host in network namespaces."""
