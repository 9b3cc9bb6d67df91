"""Privacy audit: membership inference with statistics, output restriction under adaptive attack, inversion."""
