/*
 * The least a tc program can do that keeps flows of workloads apart: parse, find the endpoint, look the flow up, count it.
 * No policy, no guard beyond the source address, no fragments, no ICMP errors, no names, no counters, no events.
 *
 * In:  packets at the host side of a veth pair; ENDPOINTS written by the bench.
 * Out: flows in FLOWS; TC_ACT_UNSPEC, or TC_ACT_SHOT for what no workload began.
 * What namegate's programs are held against.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Helpers by number (include/uapi/linux/bpf.h). */
static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static __u64 (*boot_ns)(void) = (void *)BPF_FUNC_ktime_get_boot_ns;

#define NEXT (-1)
#define DROP 2
#define SECOND 1000000000ULL

#define HTONS(x) __builtin_bswap16(x)

struct address {
	__u32 words[4];
};

struct endpoint {
	__u32 id;
	struct address v4, v6;
};

struct flow_key {
	struct address peer;
	__u32 endpoint;
	__u16 own_port, peer_port;
	__u8 protocol, pad[3];
};

struct flow {
	__u64 expires, packets[2], bytes[2];
};

struct {
	int (*type)[BPF_MAP_TYPE_HASH];
	int (*max_entries)[256];
	__u32 *key;
	struct endpoint *value;
} ENDPOINTS SEC(".maps");

struct {
	int (*type)[BPF_MAP_TYPE_LRU_HASH];
	int (*max_entries)[8192];
	struct flow_key *key;
	struct flow *value;
} FLOWS SEC(".maps");

INLINE int same(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

INLINE int packet(struct __sk_buff *skb, int from_workload)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct flow_key key = {};
	struct address source = {}, destination = {};
	__u8 *l4;
	__u32 *ip;
	__u16 *ports;

	if (data + 34 > end)
		return DROP;
	__u32 ifindex = skb->ifindex;
	struct endpoint *endpoint = map_lookup(&ENDPOINTS, &ifindex);
	if (!endpoint)
		return DROP;
	ip = (void *)(data + 14);
	switch (*(__u16 *)(data + 12)) {
	case HTONS(0x0806):
		return NEXT;
	case HTONS(0x0800):
		source.words[2] = destination.words[2] = 0xffff0000;
		source.words[3] = ip[3];
		destination.words[3] = ip[4];
		key.protocol = data[23];
		l4 = data + 14 + (data[14] & 15) * 4;
		break;
	case HTONS(0x86dd):
		if (data + 54 > end)
			return DROP;
		source = *(struct address *)(ip + 2);
		destination = *(struct address *)(ip + 6);
		key.protocol = data[20];
		l4 = data + 54;
		if (key.protocol == 58)
			return NEXT;
		break;
	default:
		return DROP;
	}
	if (l4 + 4 > end)
		return DROP;
	ports = (void *)l4;
	key.endpoint = endpoint->id;
	if (from_workload) {
		if (!same(&source, &endpoint->v4) && !same(&source, &endpoint->v6))
			return DROP;
		key.peer = destination;
		key.own_port = ports[0];
		key.peer_port = ports[1];
	} else {
		key.peer = source;
		key.own_port = ports[1];
		key.peer_port = ports[0];
	}
	__u64 expires = boot_ns() + 120 * SECOND;
	struct flow *flow = map_lookup(&FLOWS, &key);
	if (flow) {
		flow->expires = expires;
		flow->packets[from_workload]++;
		flow->bytes[from_workload] += skb->len;
		return NEXT;
	}
	if (!from_workload)
		return DROP;
	struct flow fresh = { .expires = expires, .packets = { 0, 1 }, .bytes = { 0, skb->len } };
	return map_update(&FLOWS, &key, &fresh, BPF_ANY) ? DROP : NEXT;
}

SEC("classifier") int from_workload(struct __sk_buff *skb)
{
	return packet(skb, 1);
}

SEC("classifier") int to_workload(struct __sk_buff *skb)
{
	return packet(skb, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
