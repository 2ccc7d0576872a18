# beast maps no huge pages of its own, so none are set aside. What matters is that the kernel does not
# stop a shard in order to make some.
stage huge-pages 'metal vm' \
  'when the kernel joins small pages to large ones' \
  'with "always" a page fault may wait for memory to be moved together, milliseconds long' || return 0
for pair in enabled/madvise defrag/madvise; do
  file=/sys/kernel/mm/transparent_hugepage/${pair%%/*}
  found=$(current_choice "$file") || { absent choice "$file" "${pair#*/}"; continue; }
  case "$found" in
    # Stricter is as good.
    never) emit ok "$file" "$found" 'madvise or never' '' ;;
    *) exactly choice "$file" "${pair#*/}" ;;
  esac
done
