"""Starting the processes of a job, on one machine or several, and starting them again when one is lost.

No torch here: what starts processes holds no model. Torch's own elastic agent restarts processes that end, but it does
not act on a machine that falls silent (its keep-alive only counts when machines meet anew), it loses the job with the
machine that keeps the store, and it names neither. So each machine has one launcher, and the launcher of the first
machine runs a coordinator, which all of them tell how their processes are, and that they are there.
"""
