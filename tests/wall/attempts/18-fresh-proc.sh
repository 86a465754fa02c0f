# Mounts a /proc of its own, in every kind of namespace that it may make. Success: a process of the user is seen in it.
mkdir -p .wall/proc
for namespaces in --mount -rm -rmp; do
    unshare $namespaces --fork sh -c "mount -t proc proc .wall/proc && tr '\0' ' ' <.wall/proc/$T_VICTIM/cmdline" && exit 0
done
exit 1
