# The configuration that the page begins with.
sed -n '/^version: 1/,/^```/p' "$REPOSITORY/docs/policy.md" | sed '/^```/,$d' > credresolve.yaml
