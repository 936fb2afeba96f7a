# Chooses the slot and boots it; run by U-Boot from the card. See docs/adr/0008.
# slot.txt has the slot to boot, `slot=a` or `slot=b`; try.txt, if there is one, a slot to boot once.

# U-Boot's own addresses leave 38 MB for the kernel, and this one has 52; image/boot.py checks that it fits.
setenv kernel_addr_r 0x04000000
setenv ramdisk_addr_r 0x08000000
# The device tree is wherever the firmware has put it: out of the way of both.
setenv tree 0x03e00000
fdt addr ${fdt_addr}
fdt move ${fdt_addr} ${tree} 0x100000

setenv card "${devtype} ${devnum}:${distro_bootpart}"
setenv slot a
if load ${card} ${kernel_addr_r} slot.txt; then env import -t -r ${kernel_addr_r} ${filesize} slot; fi

# It is gone before anything of that slot runs: whatever happens then, the next start is the usual one.
# A card that cannot be written is not tried. The kernel is told, and with it whoever keeps the slot or does not.
setenv once none
if load ${card} ${kernel_addr_r} try.txt; then
  if fatrm ${card} try.txt; then env import -t -r ${kernel_addr_r} ${filesize} slot; setenv once ${slot}; fi
fi

# A slot whose files cannot be read, on a card that is wearing out, leaves the other one, if there is one.
if test "${slot}" = b; then setenv slots "b a"; else setenv slots "a b"; fi
# Not named slot: a variable of the environment would hide that of the loop.
for name in ${slots}; do
  echo "dertwin: slot ${name}"
  mw.b ${kernel_addr_r} 0 0x1000
  if load ${card} ${kernel_addr_r} ${name}/cmdline.txt; then
    setexpr.s bootargs *${kernel_addr_r}
    if test "${name}" = "${once}"; then setenv bootargs "${bootargs} dertwin.trial"; fi
    if load ${card} ${kernel_addr_r} ${name}/vmlinuz; then
      if load ${card} ${ramdisk_addr_r} ${name}/initrd.img; then
        booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${tree}
      fi
    fi
  fi
  echo "dertwin: slot ${name} does not boot"
done
sleep 5
reset
