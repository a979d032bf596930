mkdir -p skills/report
sed -n '/^---$/,/^---$/p' "$REPOSITORY/docs/requirements.md" | sed -n '1,18p' > skills/report/SKILL.md
echo '# Report' >> skills/report/SKILL.md
