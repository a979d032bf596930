# The section serve of the page, with a store that needs no desktop.
sed -n '/^serve:/,/^```/p' "$REPOSITORY/docs/plugins.md" | sed '/^```/,$d' >> credresolve.yaml
sed -i.bak 's/store: kept/store: desk/' credresolve.yaml
