# The files of the bridge that the preloaded library is made of, too.
set(shared attention_node capture capture_mask cells compaction_alone compaction_commit compaction_device
           compaction_group compaction_own compaction_prepare
           compaction_rows compaction_select compaction_short compaction_state error hidden kept
           llama_api log places query_ring staged state_blob state_check sums)
