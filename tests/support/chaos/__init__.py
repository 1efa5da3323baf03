"""All faults at once: a seeded nemesis against a whole system under load, and a checker that accounts for everything.

`make chaos` runs it. Load, nemesis and checker are plain Kafka clients and signals: what is judged is what anybody sees
in the topics. Only the processes under test, and the settings of their broker, are EasyRemote's.
"""
