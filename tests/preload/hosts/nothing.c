/* An empty library: what a preload costs a process when it does nothing. */
int nothing_to_see_here;
