"""How much memory a training run takes, worked out from a model's configuration alone.

A step is carried out without numbers: on tensors that have a shape and a number format, and no memory
(``sketch`` builds the network of such, ``step`` runs forward and backward, ``ledger`` writes down what is alive). So
what is kept for backward follows from the network, the tuner, the attention and the loss themselves. What a step does
not show is counted beside it: the optimizer's state (``optimizer_state``), and what a process takes in any case
(``overhead``). ``parts`` adds up what falls to each process.
"""
