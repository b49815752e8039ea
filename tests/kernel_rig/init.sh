#!/bin/busybox sh
# The first process of the guest: mounts the host's root below a RAM disk and runs /share/run in it.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
for module in /modules/*; do $B insmod "$module"; done

options=trans=virtio,version=9p2000.L,msize=262144
$B mkdir -p /host /ram /root
$B mount -t 9p -o "$options,ro,cache=loose" root /host
$B mount -t tmpfs -o size=70% ram /ram
$B mkdir -p /ram/upper /ram/work
$B mount -t overlay -o lowerdir=/host,upperdir=/ram/upper,workdir=/ram/work root /root
for directory in proc sys dev; do $B mount --move /$directory /root/$directory; done
# The host's sockets, pid files and named network namespaces are not ours.
$B mount -t tmpfs run /root/run
$B mkdir -p /root/dev/pts /root/dev/shm /root/share /root/run/lock /root/run/netns
$B mount -t devpts devpts /root/dev/pts
$B mount -t tmpfs shm /root/dev/shm
$B mount -t 9p -o "$options,cache=none" share /root/share
$B ip link set lo up

# By exec: the kernel looks for modprobe where its first process has its root.
exec $B chroot /root /bin/bash -c '
    /bin/bash /share/run </dev/null
    echo $? >/share/status
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
'
