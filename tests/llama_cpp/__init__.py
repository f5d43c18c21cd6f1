"""llama.cpp as a real engine, with a random model of half a megabyte that is written on the spot.

It needs the packages of the extra `engines`. Nothing is downloaded.
"""
