"""A laboratory on one machine: nine hosts with real servers, and a network between them that can be broken."""
