"""Whether requests are still like the inputs that a bundle was tested on."""
