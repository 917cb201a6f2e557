"""The hook core: choose layers, record them, change ReLU's backward rule, leave everything as found. Knows torch only."""
