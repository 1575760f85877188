---@meta mqtt.codec

--- The codec of MQTT 3.1.1 and 5 (native). It knows no socket and no clock.
---
--- `version` is the level byte of CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5. 3.1.1 has no properties,
--- and reason codes only in CONNACK and SUBACK. Names are the standard's, in snake_case.
local codec = {}

---@alias mqtt.codec.Version 4|5
---@alias mqtt.Qos 0|1|2

--- Properties of MQTT 5 (2.2.2.2); each packet may carry some of them.
---@class mqtt.Properties
---@field payload_format_indicator? 0|1 1: the payload is UTF-8.
---@field message_expiry_interval? integer Seconds.
---@field content_type? string
---@field response_topic? string
---@field correlation_data? string
---@field subscription_identifier? integer[] A single integer does when encoding.
---@field session_expiry_interval? integer Seconds; 0xFFFFFFFF is for ever.
---@field assigned_client_identifier? string
---@field server_keep_alive? integer Seconds.
---@field authentication_method? string
---@field authentication_data? string
---@field request_problem_information? boolean
---@field will_delay_interval? integer Seconds.
---@field request_response_information? boolean
---@field response_information? string
---@field server_reference? string
---@field reason_string? string
---@field receive_maximum? integer
---@field topic_alias_maximum? integer
---@field topic_alias? integer
---@field maximum_qos? 0|1
---@field retain_available? boolean
---@field user_property? [string, string][] In order, names may repeat.
---@field maximum_packet_size? integer
---@field wildcard_subscription_available? boolean
---@field subscription_identifier_available? boolean
---@field shared_subscription_available? boolean

---@class mqtt.Will
---@field topic string
---@field payload string
---@field qos mqtt.Qos
---@field retain boolean
---@field properties? mqtt.Properties

---@class mqtt.Connect
---@field type "connect"
---@field protocol_version mqtt.codec.Version
---@field clean_start boolean 3.1.1: Clean Session.
---@field keep_alive integer
---@field client_id string
---@field will? mqtt.Will
---@field username? string
---@field password? string Any bytes.
---@field properties? mqtt.Properties

---@class mqtt.Connack
---@field type "connack"
---@field session_present boolean
---@field reason_code integer 3.1.1: the Connect Return code.
---@field properties? mqtt.Properties

---@class mqtt.Publish
---@field type "publish"
---@field topic string
---@field payload string
---@field qos mqtt.Qos
---@field retain? true Kept by the server, or sent because it was kept.
---@field dup? true Perhaps sent before.
---@field packet_id? integer With QoS 1 and 2.
---@field properties? mqtt.Properties

---@class mqtt.Ack
---@field type "puback"|"pubrec"|"pubrel"|"pubcomp"
---@field packet_id integer
---@field reason_code integer
---@field properties? mqtt.Properties

---@class mqtt.Subscription
---@field filter string
---@field qos mqtt.Qos
---@field no_local boolean
---@field retain_as_published boolean
---@field retain_handling 0|1|2

---@class mqtt.Subscribe
---@field type "subscribe"
---@field packet_id integer
---@field subscriptions mqtt.Subscription[]
---@field properties? mqtt.Properties

---@class mqtt.Unsubscribe
---@field type "unsubscribe"
---@field packet_id integer
---@field filters string[]
---@field properties? mqtt.Properties

---@class mqtt.Acks
---@field type "suback"|"unsuback"
---@field packet_id integer
---@field reason_codes integer[] One for each filter, in order; none in 3.1.1's UNSUBACK.
---@field properties? mqtt.Properties

---@class mqtt.Ping
---@field type "pingreq"|"pingresp"

---@class mqtt.Reason
---@field type "disconnect"|"auth"
---@field reason_code integer
---@field properties? mqtt.Properties

---@alias mqtt.Packet
---| mqtt.Connect | mqtt.Connack | mqtt.Publish | mqtt.Ack | mqtt.Subscribe | mqtt.Unsubscribe
---| mqtt.Acks | mqtt.Ping | mqtt.Reason

--- Takes one whole packet off the front of `buffer`, or leaves it alone. `properties` is absent
--- when there are none. A packet that cannot be right, or is larger than `packet_max`, is refused
--- as soon as its first bytes tell.
---@param buffer cosocket.Buffer
---@param version? mqtt.codec.Version Without: only CONNECT is taken, as a server does at first.
---@param packet_max? integer Bytes, with its header.
---@return mqtt.Packet? packet `nil` without an error: not all of it is here yet.
---@return cosocket.Error? err `protocol` or `limit`; `code` is the reason code that tells the other side.
function codec.decode(buffer, version, packet_max) end

--- Appends a packet to `buffer`, in its one canonical form; absent fields are 0, `false` and empty.
--- Nothing is cut to fit, and on an error `buffer` is as it was. Raises when a field has the wrong
--- type, or a property a name that does not exist.
---@param buffer cosocket.Buffer
---@param packet table As above; fields that say nothing may be left out.
---@param version mqtt.codec.Version
---@param packet_max? integer
---@return true? ok
---@return cosocket.Error? err `limit`: a field or the packet is too large. `protocol`: the standard forbids it.
function codec.encode(buffer, packet, version, packet_max) end

--- Appends a PUBLISH, without a table in between.
---@param buffer cosocket.Buffer
---@param version mqtt.codec.Version
---@param topic string
---@param payload? string
---@param qos? mqtt.Qos
---@param retain? boolean
---@param dup? boolean
---@param packet_id? integer
---@param properties? mqtt.Properties
---@param packet_max? integer
---@return true? ok
---@return cosocket.Error? err
function codec.encode_publish(buffer, version, topic, payload, qos, retain, dup, packet_id, properties, packet_max) end

--- Appends an acknowledgement without properties.
---@param buffer cosocket.Buffer
---@param version mqtt.codec.Version
---@param type "puback"|"pubrec"|"pubrel"|"pubcomp"
---@param packet_id integer
---@param reason_code? integer
---@return true? ok
---@return cosocket.Error? err
function codec.encode_ack(buffer, version, type, packet_id, reason_code) end

--- Takes the answer to a message off the front of a buffer, when one is there that says no more than that all is well:
--- a PUBACK, PUBREC or PUBCOMP with reason code 0 and without properties. For many at a time, of which no table is wanted.
---@param buffer cosocket.Buffer
---@param version mqtt.codec.Version
---@return integer? ack The packet's type (4, 5 or 7; 2.1.2) times 65536, and its packet identifier; `nil`: there is something else, or nothing whole.
function codec.take_ack(buffer, version) end

--- Whether messages can be published to this topic name (4.7).
---@param topic string
---@return boolean
function codec.valid_topic(topic) end

--- Whether this is a topic filter (4.7, 4.8.2).
---@param filter string
---@return boolean
function codec.valid_filter(filter) end

--- Whether `filter`, a valid one, matches the topic name. The filter of a shared subscription
--- matches as the filter within.
---@param filter string
---@param topic string
---@return boolean
function codec.matches(filter, topic) end

--- The standard's words for a reason code; with version 4 for a Connect Return code below 0x80.
---@param code integer
---@param version? mqtt.codec.Version
---@return string? words
function codec.reason(code, version) end

return codec
