/* An empty library: the cost of a preload that does nothing. */
int nothing_to_see_here;
