-- The clock of the master that has KEYS[1]: of a Cluster always the same one.
return redis.call('TIME')
