CREATE TABLE "task_idempotency_keys" (
	"user_id" varchar(255) NOT NULL,
	"key" varchar(64) NOT NULL,
	"fingerprint" text NOT NULL,
	"task_id" bigint NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "task_idempotency_keys_user_id_key_pk" PRIMARY KEY("user_id","key")
);
--> statement-breakpoint
DROP INDEX IF EXISTS "tasks_by_update";--> statement-breakpoint
DROP INDEX IF EXISTS "tasks_by_title";--> statement-breakpoint
CREATE INDEX "task_idempotency_keys_by_creation" ON "task_idempotency_keys" USING btree ("created_at");--> statement-breakpoint
ALTER TABLE "tasks" SET (fillfactor = 90);
