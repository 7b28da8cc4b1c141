"""Published weights of networks, and files of them."""
